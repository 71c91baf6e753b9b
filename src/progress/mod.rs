//! Progress: which positions may be committed. Pure.
