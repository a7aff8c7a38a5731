"""Published test keys. Anybody can read them here: they protect nothing, and no product may trust them.

Each row is one RSA key pair as its two primes in hexadecimal (2048-bit modulus, exponent 65537, made once with
``openssl genrsa 2048``) and, for the same role, the label that an Ed25519 seed is hashed from. They are fixed so
that an answer recorded today still verifies tomorrow; turning them into signatures is ``signing``'s affair.
"""

from __future__ import annotations

# In use from the start; published for a rotation; known to nobody (what the fault "wrong-key" signs with).
NAMES = ("global", "global-next", "stranger")

ED25519_SEED_LABELS = tuple("collector test key: " + name for name in NAMES)

RSA_PRIMES = (
    (
        "e0958828bfca149f1aff20da9de6c6bf06944f7e50e5d0f111f022ef2497e61e"
        "09af7ea8dc0eb697c5b16af8592e96d7d90a16d4a9959b86d9215f2c1081283f"
        "8b22215c15dec8c939d113c57e2f9297ff5a7a7966e3ddd12fb7e3d08fc47516"
        "9444880bc92a7fccca2c1c327b8e20b725844b16980fa4730810d5a9f107800d",
        "de9f609b50cf9dba4434115d7afc8afd9939bec8ef2ece7e45442250527848cf"
        "12e1d8d7210b60ce3005eea7c86cdf88747a284e76f155c79d43f385452f0e19"
        "b7b88a01b47c608bf84b53c66652b37813fd87ccab50479d522437c9b15c3d8d"
        "3e0514afc8981de3e66b1e2329b0e9f1e21bb54d48a499517b96603536f19ecd",
    ),
    (
        "e63a0f752ef38fe7f413d03e82e72af71330a5afadfb048d16f7c1dc2e53a5fb"
        "1e0c49af06383f4432e2d49f8dba71b0c5a733b67ca4f9005eb5c0b3f9feef81"
        "4309412dd049fc2ef40bad05fef27c1f468c620e28f35c1a52dfeac390d6401d"
        "bf153fc841731d2a682062e694369b8e7b1affc68f608db1779117e32eb2f12b",
        "c76c3ad9e066c93f5183f4450ed26b35e062d10c821ee7cd10c72621ee166648"
        "0d1cc520bcc193faf7cf3729e0317b2cf0c58c45967f2cf8c93f5a68edc38b17"
        "600e78cca5108993c6a69004312736d58893ee26be8b02841d305d7da4fda9ec"
        "6d89cd4b04deb3004a65d79cbd6fbbfed4a0d120960c3ebd682268620cf15a97",
    ),
    (
        "e531944a898a2b469ccc2e7f9149a883126f593e9cd0e8a6047b1b1216e281f0"
        "61e7e5d33b1c2e1c3b0324dbc7710a3ba699fc175166f2ae2e108b6a39a5530b"
        "327bd01ef58056310d6e2954699cf86dbf689f1e51d9096a23051d609b988215"
        "84361f22f194344740b4bc374a70f53b6b558c2030d7ef396069489dabd32b93",
        "dfd18bd2bd1f185caa2a5fdc63f6a115af573b0d50383c67d441ba70dfc73025"
        "e7d293995eb9ce36202a5cd21e2ec70c8a9b3f7ab93ea5254cce2b28053b40fc"
        "c9ba5917656cb6c7a6615ab96562f8916d536d09dff41f69b0da6ac80837cf59"
        "94bd10c852011c16d2c4cc33451599c91d632f46d631c164dcd8e9d7924efb19",
    ),
)
