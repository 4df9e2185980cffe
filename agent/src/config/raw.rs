//! The configuration as it stands in the file: optional texts and numbers, nothing checked
//! but names and kinds of values. Unknown keys are errors here.

use super::check::ConfigError;
use super::connections::RawConnections;
use super::http::RawHttp;
use super::lag::RawLag;
use super::promotion::RawPromotion;
use super::vacuum::RawVacuum;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub repository: RawRepository,
    pub cluster: RawCluster,
    pub agent: RawAgent,
    pub archive: RawArchive,
    pub restore: RawRestore,
    pub backup: RawBackup,
    pub retention: RawRetention,
    pub verify: RawVerify,
    pub http: RawHttp,
    pub lag: RawLag,
    pub vacuum: RawVacuum,
    pub connections: RawConnections,
    pub promotion: RawPromotion,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRepository {
    pub url: Option<String>,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: Option<bool>,
    pub ca_file: Option<PathBuf>,
    pub environment_file: Option<PathBuf>,
    pub connect_timeout: Option<String>,
    pub request_timeout: Option<String>,
    pub retry_timeout: Option<String>,
    pub lock: Option<RawLock>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLock {
    pub mode: Option<String>,
    pub days: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCluster {
    pub data_dir: Option<PathBuf>,
    pub connection: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAgent {
    pub socket: Option<PathBuf>,
    pub allow_uids: Vec<u32>,
    pub state_dir: Option<PathBuf>,
    pub nice: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawArchive {
    pub concurrency: Option<i64>,
    pub memory_max: Option<String>,
    pub queue_max: Option<String>,
    pub compression: Option<String>,
    pub compression_level: Option<i64>,
    pub timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRestore {
    pub concurrency: Option<i64>,
    pub spool_dir: Option<PathBuf>,
    pub spool_max: Option<String>,
    pub patience: Option<String>,
    pub standby_patience: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBackup {
    pub workers: Option<i64>,
    pub part_size: Option<String>,
    pub rate_max: Option<String>,
    pub compression_level: Option<i64>,
    pub checkpoint: Option<String>,
    pub wal_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetention {
    pub window_days: Option<i64>,
    pub full_backups_min: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVerify {
    pub reread_days: Option<i64>,
    pub max_bytes: Option<String>,
    pub rate_max: Option<String>,
    pub workers: Option<i64>,
}

pub(super) fn parse(path: &Path, text: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), detail: place(text, &error) })
}

/// Line, column and message, without quoting the line: it may hold a password.
fn place(text: &str, error: &toml::de::Error) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return error.message().to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    format!("line {line}, column {column}: {}", error.message().replace('\n', ", "))
}
