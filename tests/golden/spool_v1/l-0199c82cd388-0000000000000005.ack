
7d63db10 ["b","getkeymanager","a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7","1a2b3c4d"]
ffb28c32 ["s","getkeymanager","a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7",1,1,0,0,0]

6686418e ["s","getkeymanager","a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7!",1,0,0,0,-1]
d98b446b ["z","getkeymanager","a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7",{"later":true}]
