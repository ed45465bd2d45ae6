//! Fitting Room's worker: an agent that pulls trials, and the engine that trains them.

pub mod agent;
pub mod allocator;
pub mod run_command;
pub mod train;
pub mod train_command;
pub mod trainer;
