//! When data moves. What it does on its way is [`crate::flow`]'s, whoever asks.

pub mod anomalies;
pub mod batch;
pub mod export;
pub mod meter;
pub mod publisher;
pub mod stop;
pub mod stream;
pub mod watch;
