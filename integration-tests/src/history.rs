//! The daemon's history of builds.

use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{BuildHistoryRequest, UpdateBuildHistoryRequest};
use tonic::transport::Endpoint;

use crate::daemon::Daemon;

impl Daemon {
    /// Removes all records of builds, and what is kept with them.
    pub fn forget_builds(&self) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let address = format!("unix:{}", self.socket().display());
            let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
            let channel = endpoint.connect().await.expect("a connection to the daemon");
            let mut control = ControlClient::new(channel);
            let ended = BuildHistoryRequest { early_exit: true, ..Default::default() };
            let events = control.listen_build_history(ended).await.expect("the history");
            let mut events = events.into_inner();
            while let Some(event) = events.message().await.expect("a record") {
                let r#ref = event.record.expect("a record in its event").r#ref;
                let removal =
                    UpdateBuildHistoryRequest { r#ref, delete: true, ..Default::default() };
                control.update_build_history(removal).await.expect("the removal of a record");
            }
        });
    }
}
