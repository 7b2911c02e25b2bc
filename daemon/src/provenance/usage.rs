//! What steps have used, in the form of BuildKit's samples (`executor/resources/types`): one sample a
//! step, taken at its end, with the sums of all that it did. What a host does not count is left out.

use serde::Serialize;

use super::timestamp;
use crate::solver::StepUsage;

/// What a step used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ResourceUsage {
    samples: [Sample; 1],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_stat: Option<CpuStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_stat: Option<MemoryStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_stat: Option<IoStat>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CpuStat {
    #[serde(rename = "usageNanos")]
    usage: u64,
    #[serde(rename = "userNanos")]
    user: u64,
    #[serde(rename = "systemNanos")]
    system: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct MemoryStat {
    peak: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct IoStat {
    read_bytes: u64,
    write_bytes: u64,
}

impl From<&StepUsage> for ResourceUsage {
    fn from(StepUsage { used, ended_at }: &StepUsage) -> Self {
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (user, system) = (nanos(used.cpu_user), nanos(used.cpu_system));
        let cpu = CpuStat { usage: user.saturating_add(system), user, system };
        let io = IoStat { read_bytes: used.io_read, write_bytes: used.io_write };
        let sample = Sample {
            timestamp: timestamp(*ended_at),
            cpu_stat: (cpu.usage > 0).then_some(cpu),
            memory_stat: (used.peak_memory > 0).then_some(MemoryStat { peak: used.peak_memory }),
            io_stat: (io.read_bytes > 0 || io.write_bytes > 0).then_some(io),
        };
        Self { samples: [sample] }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use kiln_executor::Usage;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_counted_is_not_told() {
        let used = Usage {
            cpu_user: Duration::from_millis(3),
            cpu_system: Duration::from_micros(2),
            io_write: 4096,
            ..Usage::default()
        };
        let told = |used| {
            let usage = StepUsage { used, ended_at: SystemTime::UNIX_EPOCH };
            serde_json::to_value(ResourceUsage::from(&usage)).unwrap()
        };
        let timestamp = "1970-01-01T00:00:00Z";
        let cpu = json!({"usageNanos": 3_002_000, "userNanos": 3_000_000, "systemNanos": 2000});
        let io = json!({"readBytes": 0, "writeBytes": 4096});
        let sample = json!({"timestamp": timestamp, "cpuStat": cpu, "ioStat": io});
        assert_eq!(told(used), json!({"samples": [sample]}));
        assert_eq!(told(Usage::default()), json!({"samples": [{"timestamp": timestamp}]}));
    }
}
