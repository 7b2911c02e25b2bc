//! The daemon's history of builds.

use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{BuildHistoryRequest, StatusRequest, UpdateBuildHistoryRequest};
use kiln_proto::kiln::Miss;
use tonic::transport::{Channel, Endpoint};

use crate::daemon::Daemon;

impl Daemon {
    /// Removes all records of builds, and what is kept with them.
    pub fn forget_builds(&self) {
        runtime().block_on(async {
            let mut control = self.control().await;
            for r#ref in refs(&mut control).await {
                let removal =
                    UpdateBuildHistoryRequest { r#ref, delete: true, ..Default::default() };
                control.update_build_history(removal).await.expect("the removal of a record");
            }
        });
    }

    /// Why steps ran, as the progress of all recorded builds has it.
    pub fn recorded_misses(&self) -> Vec<Miss> {
        runtime().block_on(async {
            let mut control = self.control().await;
            let mut misses = Vec::new();
            for r#ref in refs(&mut control).await {
                let progress = control.status(StatusRequest { r#ref }).await;
                let mut progress = progress.expect("the progress of a build").into_inner();
                while let Some(status) = progress.message().await.expect("progress") {
                    misses.extend(status.misses);
                }
            }
            misses
        })
    }

    async fn control(&self) -> ControlClient<Channel> {
        let address = format!("unix:{}", self.socket().display());
        let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
        ControlClient::new(endpoint.connect().await.expect("a connection to the daemon"))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

/// The names of the recorded builds.
async fn refs(control: &mut ControlClient<Channel>) -> Vec<String> {
    let ended = BuildHistoryRequest { early_exit: true, ..Default::default() };
    let events = control.listen_build_history(ended).await.expect("the history");
    let mut events = events.into_inner();
    let mut refs = Vec::new();
    while let Some(event) = events.message().await.expect("a record") {
        refs.push(event.record.expect("a record in its event").r#ref);
    }
    refs
}
