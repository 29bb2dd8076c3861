//! When data moves. What it does on its way is [`crate::flow`]'s, whoever asks.

pub mod batch;
