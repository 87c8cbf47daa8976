// SPDX-License-Identifier: GPL-2.0
//! Traces of what a program and a device did with pages, and what the core would
//! have made of them.
#![warn(missing_docs)]

pub mod generate;
pub mod home;
mod lent;
#[path = "../../tests/random.rs"]
mod random;
pub mod room;
pub mod trace;
