//! What environment records say together: `wandb-metadata.json`, and `_wandb.e` in a run's config.
//!
//! The form is protobuf's own JSON: absent where a value is the default, 64-bit integers as strings, times as RFC 3339.
//! Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Json;
use crate::model::json::write_string;
use crate::proto::wandb_internal::{
    AppleInfo, CpuInfo, EnvironmentRecord, GitRepoRecord, GpuAmdInfo, GpuNvidiaInfo, Timestamp, TpuInfo, TrainiumInfo,
};

/// A fold of environment records. Serialized (as base64 of the merged record), it can be kept between two uploads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Environment(EnvironmentRecord);

impl Environment {
    /// Adds a record, as protobuf merges messages: values replace, lists grow, maps join.
    pub fn add(&mut self, record: &EnvironmentRecord) {
        // Cannot fail: these are the bytes of a message that we have just encoded.
        let _ = self.0.merge(record.encode_to_vec().as_slice());
    }

    /// The object; `{}` when no record said anything.
    pub fn to_json(&self) -> Json {
        let record = &self.0;
        let mut members = Members::default();
        members.text("os", &record.os);
        members.text("python", &record.python);
        members.value("startedAt", record.started_at.as_ref().and_then(time));
        members.text("docker", &record.docker);
        members.list("args", &record.args, |arg| Json::from(arg.as_str()));
        members.text("program", &record.program);
        members.text("codePath", &record.code_path);
        members.text("codePathLocal", &record.code_path_local);
        members.value("git", record.git.as_ref().map(git));
        members.text("email", &record.email);
        members.text("root", &record.root);
        members.text("host", &record.host);
        members.text("username", &record.username);
        members.text("executable", &record.executable);
        members.text("colab", &record.colab);
        members.small("cpu_count", record.cpu_count);
        members.small("cpu_count_logical", record.cpu_count_logical);
        members.text("gpu", &record.gpu_type);
        members.small("gpu_count", record.gpu_count);
        members.map("disk", &record.disk, |disk| {
            let mut members = Members::default();
            members.large("total", disk.total);
            members.large("used", disk.used);
            members.object()
        });
        members.value(
            "memory",
            record.memory.as_ref().map(|memory| {
                let mut members = Members::default();
                members.large("total", memory.total);
                members.object()
            }),
        );
        members.value("cpu", record.cpu.as_ref().map(cpu));
        members.value("apple", record.apple.as_ref().map(apple));
        members.list("gpu_nvidia", &record.gpu_nvidia, nvidia);
        members.text("cudaVersion", &record.cuda_version);
        members.list("gpu_amd", &record.gpu_amd, amd);
        members.map("slurm", &record.slurm, |value| Json::from(value.as_str()));
        members.value("trainium", record.trainium.as_ref().map(trainium));
        members.value("tpu", record.tpu.as_ref().map(tpu));
        members.value(
            "coreweave",
            record.coreweave.as_ref().map(|coreweave| {
                let mut members = Members::default();
                members.text("clusterName", &coreweave.cluster_name);
                members.text("orgId", &coreweave.org_id);
                members.text("region", &coreweave.region);
                members.object()
            }),
        );
        members.text("writerId", &record.writer_id);
        members.object()
    }
}

/// The value as text with an indentation of two, as `wandb-metadata.json` has it.
pub fn pretty(value: &Json) -> String {
    let mut out = Vec::new();
    write_pretty(value, 0, &mut out);
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

fn write_pretty(value: &Json, depth: usize, out: &mut Vec<u8>) {
    fn line(depth: usize, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    }
    match value {
        Json::Object(members) if !members.is_empty() => {
            for (index, (key, member)) in members.iter().enumerate() {
                out.push(if index == 0 { b'{' } else { b',' });
                line(depth + 1, out);
                write_string(key, out);
                out.extend_from_slice(b": ");
                write_pretty(member, depth + 1, out);
            }
            line(depth, out);
            out.push(b'}');
        }
        Json::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { b'[' } else { b',' });
                line(depth + 1, out);
                write_pretty(item, depth + 1, out);
            }
            line(depth, out);
            out.push(b']');
        }
        plain => plain.write(out),
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        EnvironmentRecord::decode(bytes.as_slice()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The members of an object; defaults stay out.
#[derive(Default)]
struct Members(BTreeMap<String, Json>);

impl Members {
    fn text(&mut self, key: &str, text: &str) {
        self.value(key, (!text.is_empty()).then(|| Json::from(text)));
    }

    fn small(&mut self, key: &str, number: u32) {
        self.value(key, (number != 0).then(|| Json::from(i64::from(number))));
    }

    fn large(&mut self, key: &str, number: u64) {
        self.value(key, (number != 0).then(|| Json::from(number.to_string())));
    }

    fn list<T>(&mut self, key: &str, items: &[T], encode: impl Fn(&T) -> Json) {
        self.value(key, (!items.is_empty()).then(|| Json::Array(items.iter().map(encode).collect())));
    }

    fn map<T>(&mut self, key: &str, entries: &BTreeMap<String, T>, encode: impl Fn(&T) -> Json) {
        let encoded = || entries.iter().map(|(key, value)| (key.clone(), encode(value))).collect();
        self.value(key, (!entries.is_empty()).then(|| Json::Object(encoded())));
    }

    fn value(&mut self, key: &str, value: Option<Json>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value);
        }
    }

    fn object(self) -> Json {
        Json::Object(self.0)
    }
}

/// RFC 3339 in UTC with as many groups of three digits as are needed; `None` for what is no time.
fn time(time: &Timestamp) -> Option<Json> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let second = jiff::Timestamp::from_second(time.seconds).ok()?.strftime("%Y-%m-%dT%H:%M:%S");
    Some(Json::from(match nanos {
        0 => format!("{second}Z"),
        nanos if nanos % 1_000_000 == 0 => format!("{second}.{:03}Z", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{second}.{:06}Z", nanos / 1_000),
        nanos => format!("{second}.{nanos:09}Z"),
    }))
}

fn git(git: &GitRepoRecord) -> Json {
    let mut members = Members::default();
    members.text("remote", &git.remote_url);
    members.text("commit", &git.commit);
    members.object()
}

fn cpu(cpu: &CpuInfo) -> Json {
    let mut members = Members::default();
    members.small("count", cpu.count);
    members.small("countLogical", cpu.count_logical);
    members.text("model", &cpu.model);
    members.object()
}

fn apple(apple: &AppleInfo) -> Json {
    let mut members = Members::default();
    members.text("name", &apple.name);
    members.small("ecpuCores", apple.ecpu_cores);
    members.small("pcpuCores", apple.pcpu_cores);
    members.small("gpuCores", apple.gpu_cores);
    members.small("memoryGb", apple.memory_gb);
    members.large("swapTotalBytes", apple.swap_total_bytes);
    members.large("ramTotalBytes", apple.ram_total_bytes);
    members.text("macModel", &apple.mac_model);
    members.object()
}

fn nvidia(gpu: &GpuNvidiaInfo) -> Json {
    let mut members = Members::default();
    members.text("name", &gpu.name);
    members.large("memoryTotal", gpu.memory_total);
    members.small("cudaCores", gpu.cuda_cores);
    members.text("architecture", &gpu.architecture);
    members.text("uuid", &gpu.uuid);
    members.text("pciBusId", &gpu.pci_bus_id);
    members.small("numaNode", gpu.numa_node);
    members.object()
}

fn amd(gpu: &GpuAmdInfo) -> Json {
    let mut members = Members::default();
    members.text("id", &gpu.id);
    members.text("uniqueId", &gpu.unique_id);
    members.text("vbiosVersion", &gpu.vbios_version);
    members.text("performanceLevel", &gpu.performance_level);
    members.text("gpuOverdrive", &gpu.gpu_overdrive);
    members.text("gpuMemoryOverdrive", &gpu.gpu_memory_overdrive);
    members.text("maxPower", &gpu.max_power);
    members.text("series", &gpu.series);
    members.text("model", &gpu.model);
    members.text("vendor", &gpu.vendor);
    members.text("sku", &gpu.sku);
    members.text("sclkRange", &gpu.sclk_range);
    members.text("mclkRange", &gpu.mclk_range);
    members.object()
}

fn trainium(trainium: &TrainiumInfo) -> Json {
    let mut members = Members::default();
    members.text("name", &trainium.name);
    members.text("vendor", &trainium.vendor);
    members.small("neuronDeviceCount", trainium.neuron_device_count);
    members.small("neuroncorePerDeviceCount", trainium.neuroncore_per_device_count);
    members.object()
}

fn tpu(tpu: &TpuInfo) -> Json {
    let mut members = Members::default();
    members.text("name", &tpu.name);
    members.small("hbmGib", tpu.hbm_gib);
    members.small("devicesPerChip", tpu.devices_per_chip);
    members.small("count", tpu.count);
    members.object()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proto::wandb_internal::record::RecordType;
    use crate::proto::wandb_internal::{DiskInfo, MemoryInfo};

    #[test]
    fn records_merge_as_protobuf_does() {
        let disk = |path: &str, total| (path.to_owned(), DiskInfo { total, used: 0 });
        let mut environment = Environment::default();
        assert_eq!(environment.to_json(), Json::object());
        environment.add(&EnvironmentRecord {
            host: "old".into(),
            args: vec!["a".into()],
            cpu_count: 2,
            started_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 632_189_000 }),
            disk: BTreeMap::from([disk("/", 270_553_174_016)]),
            ..EnvironmentRecord::default()
        });
        environment.add(&EnvironmentRecord {
            host: "vm".into(),
            args: vec!["b".into()],
            gpu_type: "T4".into(),
            memory: Some(MemoryInfo::default()),
            disk: BTreeMap::from([disk("/data", 1)]),
            git: Some(GitRepoRecord { remote_url: "r".into(), commit: String::new() }),
            ..EnvironmentRecord::default()
        });
        let expected = r#"{"args":["a","b"],"cpu_count":2,"disk":{"/":{"total":"270553174016"},"/data":{"total":"1"}},"git":{"remote":"r"},"gpu":"T4","host":"vm","memory":{},"startedAt":"2023-11-14T22:13:20.632189Z"}"#;
        assert_eq!(environment.to_json().to_string(), expected);
        let kept = serde_json::to_string(&environment).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&kept).unwrap(), environment);
        assert!(serde_json::from_str::<Environment>("\"!\"").is_err());
    }

    #[test]
    fn times_have_groups_of_three_digits() {
        let check = |seconds, nanos, expected: Option<&str>| {
            assert_eq!(time(&Timestamp { seconds, nanos }), expected.map(Json::from));
        };
        check(0, 0, Some("1970-01-01T00:00:00Z"));
        check(-1, 500_000_000, Some("1969-12-31T23:59:59.500Z"));
        check(0, 1, Some("1970-01-01T00:00:00.000000001Z"));
        check(i64::MAX, 0, None);
        check(0, -1, None);
    }

    #[test]
    fn our_metadata_names_no_user_and_no_path() {
        let RecordType::Environment(record) = crate::wandb_format::environment_record("node7", 1.5) else {
            unreachable!()
        };
        let mut environment = Environment::default();
        environment.add(&record);
        let expected = format!(
            "{{\n  \"host\": \"node7\",\n  \"program\": \"wandb-bridge {}\",\n  \"startedAt\": \"1970-01-01T00:00:01.500Z\"\n}}\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(pretty(&environment.to_json()), expected);
    }
}
