//! Peers that want the node for themselves, over real sockets.
//!
//! Each case prints what is resident and what another client met, before, during and after; it
//! holds that the other client is served, that the node stays within the memory it said it would
//! use, and that the connections end with their peers.
//!
//! Which test holds what was once found broken; those with a `.rs` are in files beside this folder,
//! the others in its modules:
//!
//! * uploads that stop or trickle hold all blocks: `blocks.rs`: `uploads_that_stop`,
//!   `uploads_that_trickle`, `small_uploads_that_trickle`, `puts_that_stop_within_a_frame`
//! * peers that ask ahead and do not read cost heap: `conns.rs`:
//!   `gets_that_are_asked_for_and_not_read`, `gets_over_tls_that_are_not_read`,
//!   `hellos_that_are_not_read`, `large_bodies_over_tls_that_are_not_read`
//! * an answer is lost when much follows a refusal: `answers.rs`:
//!   `a_refusal_is_read_by_a_client_that_sends_everything_first`,
//!   `who_goes_on_sending_is_cut_off`
//! * a proxy on this machine lends everybody its address: `doors.rs`:
//!   `a_proxy_on_this_machine_lends_nobody_its_address`
//! * a put that meets a deletion makes the node unready:
//!   `uploads::stored_deleted_and_read_at_once`
//! * failures are in no log: `doors.rs`: `a_refusal_is_found_in_the_log_by_its_id`
//! * no descriptors are left for admin and uploads: `files.rs`:
//!   `more_connections_than_files_keep_nobody_from_admin_and_uploads`,
//!   `more_uploads_than_files_take_none_from_others`
//! * idle connections shut the admin listener: `requests::idle_connections_do_not_shut_admin`
//! * one connection too many is closed without a word: `hostile.rs`:
//!   `connections_have_a_maximum`
//! * SIGHUP ends the process: `reload.rs`: `no_signal_but_those_that_ask_for_it_ends_a_node`
//! * a GET that meets a deletion gets nothing: `answers.rs`:
//!   `a_get_that_meets_a_delete_is_answered`
//! * chunks longer than any object are waited for; conditions of a PUT are ignored; `OPTIONS
//!   *`: `requests::what_is_said_of_a_body_is_judged_before_it_comes`
//! * TLS errors without an alert, and tickets that are lost with it:
//!   `handshakes::who_breaks_tls_is_told_so_behind_all_that_was_to_be_sent`,
//!   `handshakes::an_alert_answers_what_breaks_a_handshake`
//! * one step holds a shard: `hang.rs`: `a_stall_makes_the_node_unready_while_it_lasts`
//! * bytes behind a close_notify hang a shard: `answers.rs`:
//!   `bytes_behind_a_close_notify_harm_nobody`,
//!   `a_byte_behind_a_close_notify_does_not_end_a_download`
//! * readers that do not read hold all blocks: `blocks.rs`: `readers_that_do_not_read`,
//!   `gets_that_are_not_read`
//! * reads that wait stop the others between shards: `blocks.rs`:
//!   `questions_between_shards_do_not_wait_for_those_that_need_memory`
//! * a web page writes to a node on this machine: `doors.rs`:
//!   `a_page_with_a_rebound_name_changes_and_learns_nothing`
//! * accepting does not go on when descriptors are free again: `files.rs`:
//!   `more_connections_than_files_keep_nobody_from_admin_and_uploads`;
//!   `io/src/ring/tests/accept.rs`
//! * reads wait for askers who are gone: `requests::askers_that_leave_are_not_waited_for`
//! * an empty line is answered as a late request: `requests::an_empty_line_is_no_request`
//! * a HELLO ends a stream: `requests::a_hello_ends_no_stream`
//! * `ronctl` writes through links, stores files of the system as empty, leaves parts behind:
//!   `cli.rs`: `files_of_the_system_are_stored_as_they_read`,
//!   `a_download_that_is_interrupted_leaves_nothing`; `engine/src/client/download.rs`:
//!   `files_and_links_of_others_are_left_alone`
//! * a get is late although its credit has come: needs a node that does not read:
//!   `shards/src/session/oap/tests/life.rs`: `credit_that_lies_unread_is_not_late`

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod frames;
mod handshakes;
mod requests;
mod uploads;

#[test]
fn the_tests_that_are_named_here_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = String::new();
    let mut folders = vec![root.join("tests"), root.join("src"), root.join("../shards/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|name| name == "rs") {
                texts += &std::fs::read_to_string(path).expect("it is text");
            }
        }
    }
    let list = include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("//! "));
    let list: String = list.collect::<Vec<_>>().join(" ");
    let quoted = list.split('`').skip(1).step_by(2);
    let names = quoted.map(|name| name.rsplit("::").next().unwrap_or(name));
    let tests: Vec<&str> = names.filter(|name| name.matches('_').count() >= 3).collect();
    assert!(tests.len() > 30, "{}", tests.len());
    for name in tests {
        assert!(texts.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}
