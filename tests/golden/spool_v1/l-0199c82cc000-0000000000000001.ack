
342fa90e ["b","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","1a2b3c4d"]
512971ee ["s","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",0,1,0,0,4]
80122ba9 ["b","getkeymanager","b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2","1a2b3c4d"]
384cd1ba ["s","getkeymanager","b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",1,0,0,0,-1]
342fa90e ["b","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","1a2b3c4d"]
b545d85f ["a","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"]
342fa90e ["b","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","1a2b3c4d"]
7e012029 ["s","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",0,2,0,1,5]
bf27a0ed ["b","getkeymanager","a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","5e6f7a8b"]
1234abcd ["s","getk