"""Phase 3: MDAF on the Taobao ad data, one workload among others."""
