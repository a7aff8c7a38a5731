
8e35e643 ["f","reo","e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5",{"mode":"DOMAIN","source":"TELEMETRY","activity_type":"RENDER","count":3,"product_id":"42","event_id":"e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5","meta":{"window_start":1760000000,"window_end":1760003600},"domain":"acme.example"}]
a54e39bb ["b","reo","e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5","1a2b3c4d"]
3a1c7dfa ["s","reo","e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5",0,1,0,0,0]
