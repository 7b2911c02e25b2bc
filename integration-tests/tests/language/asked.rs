//! The frontend, asked by the gateway.

use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_integration_tests::{GatewayBuild, World, file_definition as file};
use kiln_proto::gateway;
use tonic::Status;

/// The built-in frontend of a daemon.
pub(crate) struct Frontend<'a> {
    world: &'a World,
    asked: AtomicUsize,
}

impl<'a> Frontend<'a> {
    pub(crate) fn of(world: &'a World) -> Self {
        Self { world, asked: AtomicUsize::new(0) }
    }

    /// What the frontend makes of a Dockerfile, whose context has a file `a` alone.
    pub(crate) async fn convert(
        &self,
        dockerfile: &str,
        options: &[(&str, &str)],
    ) -> Result<gateway::Result, Status> {
        let id = format!("language-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let mut build = GatewayBuild::start(&self.world.daemon, &id).await;
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let inputs = [("dockerfile", file("/Dockerfile", dockerfile)), ("context", file("/a", ""))];
        let question = gateway::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: options.collect(),
            frontend_inputs: inputs.map(|(name, input)| (name.to_owned(), input)).into(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..Default::default()
        };
        let question = build.request(question);
        let answer = build.bridge.solve(question).await;
        build.end().await;
        Ok(answer?.into_inner().result.unwrap_or_default())
    }
}
