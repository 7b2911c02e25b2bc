//! Secrets, fetched from the client when a step needs them and kept nowhere.

use anyhow::bail;
use kiln_proto::secrets::GetSecretRequest;
use kiln_proto::secrets::secrets_client::SecretsClient;
use kiln_proto::session::methods;
use tonic::Code;

use super::Session;

/// As much as BuildKit takes.
const MAX_SECRET: usize = 500 << 10;

impl Session {
    /// The secret `id`, or nothing if the client does not have it.
    pub(crate) async fn secret(&self, id: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Ok(channel) = self.channel_for(methods::SECRET) else { return Ok(None) };
        let request = GetSecretRequest { id: id.to_owned(), ..Default::default() };
        match SecretsClient::new(channel).get_secret(request).await {
            Ok(answer) => {
                let data = answer.into_inner().data;
                if data.len() > MAX_SECRET {
                    bail!("secret {id} has {} bytes, more than {MAX_SECRET}", data.len());
                }
                Ok(Some(data.to_vec()))
            }
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                Ok(None)
            }
            Err(status) => Err(status.into()),
        }
    }
}
