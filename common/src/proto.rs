//! The generated messages and services, included here and nowhere else.
//!
//! Code past [`convert`](crate::convert) and the two programs' service edges does not see these types.

#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("fittingroom.v1");

/// The version of these messages. A worker and a coordinator of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 1;
