//! The program rules of a merchant: what a purchase earns and when it is due. Pure: no I/O, no clock.
