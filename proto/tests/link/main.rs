//! Two links joined by a channel that delays, loses, reorders, duplicates and corrupts, in virtual
//! time.

mod channel;
mod hostile;
mod recovery;
mod timing;
