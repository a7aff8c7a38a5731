"""Windows: the machine id (MachineGuid) and the SID of the user who runs this process.

The registry and the token are asked in two small functions; what the token gives is taken apart by a pure one, which
runs anywhere.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def machine_guid() -> str:
    """MachineGuid, from the 64-bit view: a 32-bit Python would otherwise see no such value. Raises ``OSError``."""
    if sys.platform != "win32":
        raise OSError("no registry here")
    import winreg

    access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    path = r"SOFTWARE\Microsoft\Cryptography"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, access) as key:
        return str(winreg.QueryValueEx(key, "MachineGuid")[0])


def ask_token() -> tuple[bytes, int]:
    """The TOKEN_USER of this process, and the address at which the system wrote it. Raises ``OSError``."""
    if sys.platform != "win32":
        raise OSError("no tokens here")
    import ctypes
    from ctypes import wintypes

    # Instances of our own: ctypes.windll is the host's too. Handles are passed as such, or 64 bits would be cut.
    advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    token_query, token_user = 0x0008, 1  # winnt.h
    process, token = wintypes.HANDLE(kernel.GetCurrentProcess()), wintypes.HANDLE()
    if not advapi.OpenProcessToken(process, token_query, ctypes.byref(token)):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        # A pointer, a DWORD and a SID of at most 68 bytes (SECURITY_MAX_SID_SIZE).
        buffer, size = ctypes.create_string_buffer(256), wintypes.DWORD()
        if not advapi.GetTokenInformation(token, token_user, buffer, 256, ctypes.byref(size)):
            raise ctypes.WinError(ctypes.get_last_error())
        return buffer.raw[: size.value], ctypes.addressof(buffer)
    finally:
        kernel.CloseHandle(token)


def token_sid(token_user: bytes, address: int, *, pointer_bytes: int) -> str:
    """The SID that a TOKEN_USER written at ``address`` points to: "S-1-5-..." ([MS-DTYP] 2.4.2); or ``ValueError``."""
    offset = int.from_bytes(token_user[:pointer_bytes], "little") - address
    sid = token_user[offset:] if offset >= pointer_bytes else b""
    end = 8 + 4 * sid[1] if len(sid) >= 8 else 0
    if not 8 <= end <= len(sid) or sid[0] != 1:
        raise ValueError("not a SID")
    subs = [int.from_bytes(sid[start : start + 4], "little") for start in range(8, end, 4)]
    return "-".join(map(str, ["S-1", int.from_bytes(sid[2:8], "big"), *subs]))


def user(ask: Callable[[], tuple[bytes, int]] = ask_token) -> str:
    """The SID of the current user; "" where it cannot be had, which stays so: a frozen product without ``ctypes``."""
    try:
        return token_sid(*ask(), pointer_bytes=8 if sys.maxsize > 2**32 else 4)
    except Exception:  # ctypes raises what it likes
        return ""
