//! Fitting Room's worker: an agent that pulls trials, and the engine that trains them.

pub mod agent;
pub mod allocator;
pub mod check_command;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod models_command;
pub mod predict_command;
pub mod run_command;
mod signals;
pub mod train;
pub mod train_command;
pub mod trainer;
