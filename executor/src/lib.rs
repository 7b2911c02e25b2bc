//! Runs one process in its own namespaces on given mounts, with limits, and reports its output,
//! exit and resource use.
//!
//! A multi-threaded daemon must not fork itself, so steps are started by a small process, the
//! [`Zygote`], started before the daemon has threads. [`Executor::run`] sends it a
//! [`ProcessSpec`]; what comes back is a [`Running`] step, whose file system, processes and control
//! group are its own and gone when it is.
//!
//! What this crate promises:
//!
//! - When [`Running::wait`] returns, no process of the step is left, and [`Rootfs::upper`] holds
//!   all it wrote and nothing else.
//! - Dropping a [`Running`] kills the step. When the daemon dies, however, everything it ran dies
//!   with it.
//! - No path in a specification, no symbolic link in an image and nothing that a confined step
//!   does reaches a file of the host that was not mounted, nor the daemon's own program.
//!
//! ```no_run
//! # use kiln_executor::*;
//! # fn run(spec: ProcessSpec, io: ProcessIo) -> Result<(), Box<dyn std::error::Error>> {
//! serve_if_zygote(); // before anything else
//! let zygote = start_zygote()?; // before any thread
//! tokio::runtime::Runtime::new()?.block_on(async {
//!     let executor = Executor::new(zygote, ExecutorConfig::default())?;
//!     let mut step = executor.run(spec, io).await?;
//!     let exit = step.wait().await?;
//!     assert_eq!(exit.status, ExitStatus::Code(0));
//!     Ok(())
//! })
//! # }
//! ```
#![deny(unsafe_code)]

mod apparmor;
mod cgroup;
mod error;
mod executor;
mod network;
mod request;
mod running;
mod seccomp;
mod selinux;
mod spec;
mod step;
mod stubs;
mod supervised;
mod sys;
mod user_namespace;
mod zygote;

pub use apparmor::AppArmorError;
pub use error::{ExecutorError, HookEnd, InvalidSpec};
pub use executor::{Executor, ExecutorConfig, UserNamespaceConfig};
pub use network::{BridgeConfig, CniConfig, InvalidSubnet, NetworkConfig, NetworkError, Subnet};
pub use running::{ExecSpec, Exit, ExitStatus, Running, StepHandle, Usage};
pub use selinux::{SelinuxError, SelinuxLabels};
pub use spec::{
    Device, Hook, HookKind, Inert, Mount, Network, OverlayUpper, ProcessIo, ProcessSpec, Resources,
    Rlimit, RlimitResource, Rootfs, Security, User,
};
pub use user_namespace::{
    SubordinateIds, UserNamespaceError, enter_user_namespace, in_user_namespace,
};
pub use zygote::protocol::Stage;
pub use zygote::{Zygote, fork_zygote, serve_if_zygote, start_zygote};
