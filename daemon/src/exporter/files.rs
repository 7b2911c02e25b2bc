//! `type=local` and `type=tar`: the files of the result themselves.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use kiln_proto::fsutil::{Packet, send};
use kiln_snapshotter::View;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Status;

use super::send as delivery;
use super::{Exported, Part, tree};
use crate::attributes::Attributes;
use crate::solver::{Build, Snapshot};

/// The files of each part, with the directory that it goes to.
async fn views(
    build: &Arc<Build>,
    parts: &[Part],
    split: bool,
) -> anyhow::Result<Vec<(String, View)>> {
    let layers = &build.daemon.layers;
    let mut views = Vec::new();
    for part in parts {
        layers.fetch(build, &Snapshot::Layers(part.stack.clone())).await?;
        let dir = if split { part.id.replace('/', "_") } else { String::new() };
        views.push((dir, layers.view_of(part.stack.ids())?));
    }
    Ok(views)
}

fn is_split(parts: &[Part], attributes: &mut Attributes) -> anyhow::Result<bool> {
    let several = parts.iter().any(|part| !part.id.is_empty());
    let split = attributes.flag("platform-split", several)?;
    if !split && parts.len() > 1 {
        bail!("platform-split=false of several platforms is not supported by this daemon yet");
    }
    Ok(split && several)
}

pub(super) async fn export_local(
    build: &Arc<Build>,
    parts: &[Part],
    mut attributes: Attributes,
    id: &str,
) -> anyhow::Result<Exported> {
    let split = is_split(parts, &mut attributes)?;
    match attributes.take("mode").as_deref() {
        None | Some("" | "copy") => {}
        Some(other) => bail!("mode={other:?} is not supported by this daemon yet"),
    }
    attributes.finish()?;
    let vertex = build.progress.internal(&format!("export:{id}"), "exporting to client directory");
    let work = async {
        let views = views(build, parts, split).await?;
        let status = vertex.action("copying files", "transferring");
        let session = build.session()?;
        let (outgoing, incoming) = delivery::open(session, id, &BTreeMap::new())?;
        let decode = |message: Bytes| {
            Packet::decode(message).map_err(|error| Status::internal(error.to_string()))
        };
        let mut incoming = incoming.map(move |message| message.and_then(decode));
        let (packets, mut queue) = mpsc::channel::<Packet>(64);
        let encode = async move {
            while let Some(packet) = queue.recv().await {
                if outgoing.send(packet.encode_to_vec().into()).await.is_err() {
                    break;
                }
            }
        };
        let tree = Arc::new(tree::ViewTree::new(views));
        let count = move |size: usize| status.add(size as u64);
        let (sent, ()) = tokio::join!(send(tree, &mut incoming, packets, count), encode);
        sent.context("cannot send files to the client")?;
        anyhow::Ok(Exported::default())
    };
    vertex.run(work).await
}

pub(super) async fn export_tar(
    build: &Arc<Build>,
    parts: &[Part],
    mut attributes: Attributes,
    id: &str,
) -> anyhow::Result<Exported> {
    let split = is_split(parts, &mut attributes)?;
    attributes.finish()?;
    let vertex = build.progress.internal(&format!("export:{id}"), "exporting to client tarball");
    let work = async {
        let views = views(build, parts, split).await?;
        let _status = vertex.status("sending tarball");
        let session = build.session()?.clone();
        let write = move |out: &mut dyn Write| tree::write_tar(&views, out);
        delivery::stream(&session, id, &BTreeMap::new(), write).await?;
        anyhow::Ok(Exported::default())
    };
    vertex.run(work).await
}
