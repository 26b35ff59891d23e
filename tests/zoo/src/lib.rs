//! What every zoo program shares: the READY / PASS protocol.
