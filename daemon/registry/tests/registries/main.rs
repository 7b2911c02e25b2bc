//! The client against Debian's registry, and against servers that misbehave.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod support;

mod authorization;
mod distribution;
mod hostile;
mod mirrors;
mod redirects;
mod referrers;
mod tls;
mod transfers;
