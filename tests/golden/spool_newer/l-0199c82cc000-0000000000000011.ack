
94f6b5bb ["S2","getkeymanager","x",{"state":"sent"}]
cd55afdf {"v":2,"k":"state"}
