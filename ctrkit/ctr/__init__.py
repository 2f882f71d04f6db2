"""Phase 3: the MDAF model on the Taobao ad data, one workload among others."""
