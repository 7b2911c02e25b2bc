//! Measures what a step costs over its command: `cargo run --release --example overhead`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, not a product")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_executor::{
    Executor, ExecutorConfig, Network, ProcessIo, ProcessSpec, Rootfs, UserNamespaceConfig,
    serve_if_zygote, start_zygote,
};

const WARM_UP: usize = 50;
const STEPS: usize = 500;

fn main() {
    serve_if_zygote();
    let zygote = start_zygote().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        // With `users` as its argument, steps have a user namespace.
        let with_users = std::env::args().nth(1).is_some_and(|word| word == "users");
        let user_namespace = with_users.then(|| UserNamespaceConfig {
            ids: "300000:65536".parse().unwrap(),
            directory: dir.path().to_owned(),
            scratch: dir.path().join("scratch"),
        });
        let config = ExecutorConfig {
            cgroup_parent: format!("kiln-overhead-{}", std::process::id()),
            user_namespace,
            ..ExecutorConfig::default()
        };
        let executor = Executor::new(zygote, config).unwrap();
        make_base(&dir.path().join("base"));
        for (name, network) in [
            ("host network", Network::Host),
            ("no network", Network::None),
            ("network of its own", Network::Sandbox),
        ] {
            let mut times = Vec::new();
            for number in 0..WARM_UP + STEPS {
                let spec = spec(dir.path(), &format!("{network:?}-{number}"), network);
                let (output, io) = streams();
                let started = Instant::now();
                let exit = executor.run(spec, io).await.unwrap().wait().await.unwrap();
                times.push(started.elapsed());
                assert_eq!(exit.status, kiln_executor::ExitStatus::Code(0));
                drop(output);
            }
            report(name, times.split_off(WARM_UP));
        }
    });
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1000.0;
    println!(
        "{name}: median {:.2} ms, p10 {:.2}, p90 {:.2}, p99 {:.2}",
        at(50),
        at(10),
        at(90),
        at(99)
    );
}

fn streams() -> (std::io::PipeReader, ProcessIo) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap().into();
    (reader, ProcessIo { stdin: None, stdout: writer.into(), stderr })
}

fn spec(dir: &Path, id: &str, network: Network) -> ProcessSpec {
    let (upper, work) = (dir.join(id).join("upper"), dir.join(id).join("work"));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(&work).unwrap();
    let rootfs = Rootfs { lower: vec![dir.join("base")], upper, work };
    ProcessSpec { network, ..ProcessSpec::new(id, rootfs, vec!["/bin/true".into()]) }
}

fn make_base(base: &Path) {
    for name in ["bin", "dev", "proc", "sys"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    symlink("busybox", base.join("bin/true")).unwrap();
}
