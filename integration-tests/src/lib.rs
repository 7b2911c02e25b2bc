//! The fixture for tests of Kiln's behaviour through its built programs.
//!
//! A test reads as a user's session: it starts a [`World`] (a `kilnd` of its own and a real
//! registry, both on temporary paths and free ports), writes a [`Context`], runs `kiln build` and
//! looks at the exit status, the log and the image that came out.
//!
//! ```no_run
//! use kiln_integration_tests::{Context, State, World};
//!
//! let world = World::start();
//! let context = Context::new()
//!     .dockerfile("FROM busybox\nCOPY greeting /\nRUN cat /greeting")
//!     .file("greeting", "hello\n");
//! world.build(&context).succeeds();
//! let again = world.build(&context).succeeds();
//! again.step_is("RUN cat /greeting", &State::Cached);
//! ```
//!
//! What a test may rely on: nothing here sleeps (every wait is for an event, with a deadline);
//! every program that was started has ended, and every file is gone, when its guard is dropped; a
//! test that panics prints the daemon's log. Failures of the fixture itself are panics, since they
//! are failed tests.
//!
//! The programs are those of the build that made the tests; `KILN_BIN` and `KILND_BIN` name others.
//! With `KILN_TEST_ROOTLESS=1` all daemons are an ordinary user's, and with
//! `KILN_TEST_USER_NAMESPACES=1` the steps of root's have a user namespace. With `KILN_TEST_SELINUX=1`
//! all steps have SELinux's labels, on a host that has it.

#![forbid(unsafe_code)]

mod archive;
mod base;
mod context;
mod daemon;
mod dedent;
mod failing_disk;
mod gateway;
mod history;
mod host;
mod http;
mod image;
mod layer;
mod leftovers;
pub mod object_server;
mod ordinary_user;
mod power_cut_disk;
mod process;
mod programs;
mod progress;
mod ready;
mod registry;
mod repository;
mod run;
mod served;
mod small_disk;
mod tap;
mod terminal;
mod tool;
mod web_server;
mod world;

pub use archive::{docker_archive, oci_archive, unpack_archive};
pub use base::busybox_layer;
pub use context::Context;
pub use daemon::{Checked, Daemon, USER_NAMESPACES};
pub use dedent::dedent;
pub use failing_disk::FailingDisk;
pub use gateway::{GatewayBuild, Shell, chain, file_definition, image_op, worker};
pub use host::Host;
pub use image::Image;
pub use layer::{Entry, Kind, Layer, LayerTar, digest};
pub use leftovers::{children_of, ends_within, mounts_below, processes_with, work_directories};
pub use ordinary_user::OrdinaryUser;
pub use power_cut_disk::{PowerCut, PowerCutDisk};
pub use process::Process;
pub use programs::{kiln, kilnd, program_layer};
pub use progress::{Progress, State, Step};
pub use ready::ReadySocket;
pub use registry::{Registry, architecture, image_config};
pub use repository::Repository;
pub use run::{Invocation, Outcome, Running};
pub use rustix::process::Signal;
pub use small_disk::SmallDisk;
pub use terminal::AtTerminal;
pub use tool::tool;
pub use web_server::{Page, WebServer};
pub use world::World;
