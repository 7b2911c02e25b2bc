//! Secrets that steps mount.

use crate::args::secret::{Secret, Source};
use kiln_proto::secrets::{GetSecretRequest, GetSecretResponse, secrets_server};
use std::collections::BTreeMap;
use tonic::{Request, Response, Status};

/// The largest secret that daemons take.
pub(crate) const MAX_SIZE: u64 = 500 << 10;

/// Gives secrets by id. They are read when a step asks for them.
#[derive(Debug)]
pub(crate) struct Secrets {
    sources: BTreeMap<String, Source>,
}

impl Secrets {
    pub(crate) fn new(secrets: Vec<Secret>) -> Self {
        Self { sources: secrets.into_iter().map(|secret| (secret.id, secret.source)).collect() }
    }
}

#[tonic::async_trait]
impl secrets_server::Secrets for Secrets {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let source = self
            .sources
            .get(&id)
            .ok_or_else(|| Status::not_found(format!("secret {id:?} not found")))?;
        let data = match source {
            Source::Env(name) => std::env::var_os(name).unwrap_or_default().into_encoded_bytes(),
            Source::File(path) => tokio::fs::read(path).await.map_err(|error| {
                Status::unknown(format!("secret {id:?}: reading {}: {error}", path.display()))
            })?,
        };
        if data.len() as u64 > MAX_SIZE {
            return Err(Status::invalid_argument(format!(
                "secret {id:?} has {} bytes, of at most {MAX_SIZE}",
                data.len()
            )));
        }
        Ok(Response::new(GetSecretResponse { data: data.into() }))
    }
}
