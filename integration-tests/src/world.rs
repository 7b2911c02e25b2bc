//! A daemon and a registry, for the tests that need no more of each.

use crate::context::Context;
use crate::daemon::Daemon;
use crate::image::Image;
use crate::registry::Registry;
use crate::run::{Invocation, Outcome};

/// Everything that a build needs.
pub struct World {
    /// The daemon; before the registry, so that it is stopped first.
    pub daemon: Daemon,
    /// The registry, which has `library/busybox`.
    pub registry: Registry,
}

impl World {
    /// Starts both.
    pub fn start() -> Self {
        let registry = Registry::start();
        Self { daemon: Daemon::start(&registry), registry }
    }

    /// Starts both, the daemon as an ordinary user.
    pub fn start_rootless() -> Self {
        let registry = Registry::start();
        Self { daemon: Daemon::start_rootless(&registry), registry }
    }

    /// Starts both, the daemon as root also with `KILN_TEST_ROOTLESS=1`.
    ///
    /// That is right only for what an ordinary user's daemon cannot have, by README.md ("Without
    /// root"), and the test says what it is: the uses of this are the list of what is not tested
    /// without root.
    pub fn start_with_rights() -> Self {
        let registry = Registry::start();
        Self { daemon: Daemon::start_by_root(&registry), registry }
    }

    /// `kiln` with the daemon.
    pub fn kiln(&self) -> Invocation {
        self.daemon.kiln()
    }

    /// `kiln build` of a context, with the plain log. More arguments may follow.
    pub fn build(&self, context: &Context) -> Invocation {
        self.daemon.build(context)
    }

    /// Builds, pushes to the registry as `name` and reads the image back from there.
    #[track_caller]
    pub fn pushed(&self, name: &str, build: Invocation) -> (Outcome, Image) {
        let outcome = build.args(["--push", "-t", &self.registry.reference(name)]).succeeds();
        (outcome, self.registry.image(name))
    }

    /// Builds with `daemon`, without cache and with times that are always the same, pushes to the registry
    /// as `name` and reads the image back from there.
    #[track_caller]
    pub fn reproduced(&self, daemon: &Daemon, name: &str, context: &Context) -> (Outcome, Image) {
        let reference = self.registry.reference(name);
        let output = format!("type=image,name={reference},push=true,rewrite-timestamp=true");
        let build = daemon.build(context).args(["--output", &output, "--no-cache"]);
        (build.env("SOURCE_DATE_EPOCH", "1700000000").succeeds(), self.registry.image(name))
    }

    /// The image of a context, by way of the registry.
    #[track_caller]
    pub fn image(&self, context: &Context) -> Image {
        self.pushed("test/image:latest", self.build(context)).1
    }
}
