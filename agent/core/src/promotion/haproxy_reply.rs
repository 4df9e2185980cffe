//! What HAProxy's runtime interface answers, read without a guess.
//!
//! `show servers state` is a version line, a line of names after `# `, and a line for each server,
//! with fields between spaces (management guide of HAProxy 2.6, section 9.3).

/// A server of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerState {
    /// Its address; `-` where there is none.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Whether the administrator put it into maintenance.
    pub maintenance: bool,
}

/// `SRV_ADMF_FMAINT`, set by `state maint`; `srv_admin_state` is a set of such bits.
const FORCED_MAINTENANCE: u32 = 0x01;

/// Finds a server in the answer to `show servers state <backend>`; `None` if it is not there.
pub fn server_state(answer: &str, backend: &str, server: &str) -> Option<ServerState> {
    let names: Vec<&str> = answer.lines().find_map(|line| line.strip_prefix("# "))?.split(' ').collect();
    let column = |name: &str| names.iter().position(|found| *found == name);
    let (be_name, srv_name) = (column("be_name")?, column("srv_name")?);
    let (address, port, admin) = (column("srv_addr")?, column("srv_port")?, column("srv_admin_state")?);
    answer.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.get(be_name) != Some(&backend) || fields.get(srv_name) != Some(&server) {
            return None;
        }
        let admin_state: u32 = fields.get(admin)?.parse().ok()?;
        Some(ServerState {
            address: (*fields.get(address)?).to_owned(),
            port: fields.get(port)?.parse().ok()?,
            maintenance: admin_state & FORCED_MAINTENANCE != 0,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state \
        srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health \
        srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n\
        3 primary 1 pg 127.0.0.1 2 0 1 1 20 1 0 2 0 0 0 0 - 5432 -\n\
        3 primary 2 spare 127.0.0.1 0 5 1 1 20 1 0 2 0 0 0 0 - 5433 -\n";

    #[test]
    fn a_server_is_found_by_backend_and_name() {
        let state = server_state(ANSWER, "primary", "pg").unwrap();
        assert_eq!(state, ServerState { address: "127.0.0.1".to_owned(), port: 5432, maintenance: false });
        assert!(server_state(ANSWER, "primary", "spare").unwrap().maintenance);
        assert_eq!(server_state(ANSWER, "replicas", "pg"), None);
        assert_eq!(server_state("Can't find backend.\n", "primary", "pg"), None);
    }
}
