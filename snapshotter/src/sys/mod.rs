//! System calls that take a directory descriptor and one name.
//!
//! `rustix` makes almost all of them safe to call; what is here adds what it lacks.

pub(crate) mod xattr;
