//! Paths of the methods that a client may serve on its session.

/// Sends one of the client's directories.
pub const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Receives an export.
pub const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Gives a registry's user name and secret.
pub const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
/// Gets a registry's bearer token.
pub const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
/// Says whether the client gets tokens itself.
pub const TOKEN_AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
/// Proves that two sessions hold the same credentials.
pub const VERIFY_TOKEN_AUTHORITY: &str = "/moby.filesync.v1.Auth/VerifyTokenAuthority";
/// Gives a secret.
pub const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// Says whether an ssh agent is there.
pub const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
/// Connects to an ssh agent.
pub const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// Sends a stream that a build's source URL names.
pub const UPLOAD: &str = "/moby.upload.v1.Upload/Pull";
/// Chooses exporters when the result is known.
pub const FIND_EXPORTERS: &str = "/moby.exporter.v1.Exporter/FindExporters";
/// Says that the chosen exporters are done.
pub const FINALIZE_EXPORT: &str = "/moby.exporter.v1.Exporter/FinalizeExport";
/// Decides about a source.
pub const CHECK_POLICY: &str =
    "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";
/// Reads a blob of one of the client's content stores.
pub const CONTENT_READ: &str = "/containerd.services.content.v1.Content/Read";
/// Says what is known of a blob.
pub const CONTENT_INFO: &str = "/containerd.services.content.v1.Content/Info";
/// Writes a blob.
pub const CONTENT_WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// Says that the client is alive.
pub const HEALTH: &str = "/grpc.health.v1.Health/Check";
