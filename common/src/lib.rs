//! What Fitting Room's coordinator and its workers share.
//!
//! Domain types live here in their own modules; [`proto`] holds the generated wire types and
//! [`convert`] the only conversions between the two. Nothing in this crate reads a clock, draws
//! from a thread's random generator, opens a socket or touches a database, but that [`process`]
//! writes the log and speaks to systemd.

pub mod access;
pub mod checkpoint;
pub mod convert;
pub mod dataset;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gpu;
pub mod hyperparameter;
pub mod id;
pub mod length;
pub mod operator;
pub mod process;
pub mod proto;
pub mod record;
pub mod rng;
pub mod space;
pub mod time;
pub mod trial;
pub mod view;
pub mod work;
