//! The one line of a monitoring plugin: state, what for, and figures after a bar
//! (<https://www.monitoring-plugins.org/doc/guidelines.html#AEN201>).

use super::{Report, ServerRole, StandbyReport};
use crate::quantity::Bytes;
use std::time::Duration;

/// `LAG OK - ... | figures`; never more than one line.
pub fn check_line(report: &Report) -> String {
    let text = if report.findings.is_empty() {
        calm(report)
    } else {
        let texts: Vec<&str> = report.findings.iter().map(|finding| finding.text.as_str()).collect();
        texts.join("; ")
    };
    // What the server names itself, such as an application_name, must not end the text.
    let text = text.replace(['|', '\n', '\r'], " ");
    format!("LAG {} - {}: {} | {}", report.state, report.role, text, figures(report).join(" "))
}

fn calm(report: &Report) -> String {
    match (&report.standby, report.role) {
        (Some(standby), _) => calm_standby(standby),
        (None, ServerRole::Standby) => "nothing is known".to_owned(),
        (None, ServerRole::Primary) => {
            let streaming = report.replicas.iter().filter(|replica| replica.is_streaming());
            let (all, slots) = (streaming.clone().count(), report.slots.len());
            let sync = streaming.filter(|replica| replica.is_synchronous()).count();
            format!("{all} standbys stream, {sync} of them synchronous; {slots} slots")
        }
    }
}

fn calm_standby(standby: &StandbyReport) -> String {
    let lag = standby.replay_lag.unwrap_or_default().as_secs_f64();
    let bytes = Bytes(standby.replay_lag_bytes.unwrap_or_default());
    format!("replay lag {lag:.1} s, {bytes}; receiver {}", standby.receiver.word())
}

/// `label=value[unit];warning;critical;minimum`, with `U` for what is unknown.
fn figures(report: &Report) -> Vec<String> {
    let mut figures = Vec::new();
    let limits = report.thresholds;
    let mut time = |label: &str, lag: Option<Duration>| {
        let (warning, critical) = (limits.warning.as_secs_f64(), limits.critical.as_secs_f64());
        figures.push(match lag {
            Some(lag) => format!("{label}={:.3}s;{warning};{critical};0", lag.as_secs_f64()),
            None => format!("{label}=U;{warning};{critical};0"),
        });
    };
    if let Some(standby) = &report.standby {
        time("replay_lag", standby.replay_lag);
    }
    for replica in &report.replicas {
        time(&quoted(&format!("replay_lag_{}", replica.name)), replica.last_stage().seconds);
    }
    let mut bytes = |label: &str, bytes: Option<u64>| {
        figures.push(match bytes {
            Some(bytes) => format!("{label}={bytes}B;;;0"),
            None => format!("{label}=U;;;0"),
        });
    };
    if let Some(standby) = &report.standby {
        bytes("replay_lag_bytes", standby.replay_lag_bytes);
        bytes("receive_lag_bytes", standby.receive_lag_bytes);
    }
    for slot in &report.slots {
        bytes(&quoted(&format!("slot_retained_{}", slot.name)), slot.retained_bytes);
    }
    if let Some(synchronous) = &report.synchronous {
        let (there, required) = (synchronous.streaming, synchronous.required);
        figures.push(format!("synchronous_standbys={there};;{required}:;0"));
    }
    figures
}

/// A label with anything but letters, digits and underscores stands in quotes, and holds neither
/// a quote nor an equals sign.
fn quoted(label: &str) -> String {
    let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain {
        return label.to_owned();
    }
    format!("'{}'", label.replace(['\'', '=', '|', '\n', '\r'], "_"))
}
