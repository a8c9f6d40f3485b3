//! Peers that want the node for themselves, over real sockets.
//!
//! Each case prints what is resident and what another client met, before, during and after
//! (`common/flood.rs`); it holds that the other client is served, that the node stays within the
//! memory it said it would use, that it gives memory back, and that the connections end with their
//! peers. `perf/scripts/redteam.sh` makes a table of what they print.
//!
//! Below is which test holds what; those with a `.rs` are in files beside this folder, the others
//! in its modules. First, what takes from others:
//!
//! * uploads that stop or trickle hold all blocks: `blocks.rs`: `uploads_that_stop`,
//!   `uploads_that_trickle`, `small_uploads_that_trickle`, `puts_that_stop_within_a_frame`,
//!   `uploads_that_are_slow_do_not_keep_others_from_writing`,
//!   `slow_uploads_are_ended_of_those_who_have_many`,
//!   `puts_of_a_byte_do_not_keep_others_from_writing`
//! * uploads of a gibibyte that go on, that are broken off, that are wrong, all of one object, and
//!   against deletions: `uploads::uploads_of_a_gibibyte_that_go_on`,
//!   `uploads::uploads_that_are_broken_off_or_wrong_leave_nothing`,
//!   `uploads::everybody_stores_the_same`, `uploads::stored_deleted_and_read_at_once`,
//!   `frames::puts_that_are_broken_off_or_refused`
//! * peers that ask ahead and do not read cost heap: `conns.rs`:
//!   `gets_that_are_asked_for_and_not_read`, `gets_over_tls_that_are_not_read`,
//!   `hellos_that_are_not_read`, `large_bodies_over_tls_that_are_not_read`,
//!   `short_answers_over_tls_take_what_is_counted_and_give_it_back`,
//!   `the_greedy_are_shed_and_the_modest_are_not`; `frames::hello_without_end`
//! * peers that ask ahead and do read: `requests::long_pipelines_are_answered_to_their_end`
//! * readers that stop, or take a byte now and then, hold all blocks, or spin a shard: `blocks.rs`:
//!   `readers_that_do_not_read`, `gets_that_are_not_read`; `readers.rs`:
//!   `bodies_that_began_are_finished_while_silent_readers_keep_coming`,
//!   `streams_that_live_on_a_byte_of_credit_hold_no_memory`;
//!   `connections::readers_that_stop_in_a_large_body`, `frames::streams_without_credit`
//! * reads that wait stop the others between shards: `blocks.rs`:
//!   `questions_between_shards_do_not_wait_for_those_that_need_memory`
//! * reads wait for askers who are gone: `requests::askers_that_leave_are_not_waited_for`
//! * hundreds of ranges in one request: `requests::ranges_by_the_hundred`
//! * idle connections, unfinished heads, heads that trickle:
//!   `connections::idle_ones_and_unfinished_heads`,
//!   `connections::heads_that_trickle_end_at_their_deadline`
//! * frames that trickle: `frames::frames_that_trickle_end_at_their_deadline`
//! * connections that are reset, half closed, or left: `connections::resets`,
//!   `connections::half_closed_peers_get_all_that_they_asked_for`; `hostile.rs`:
//!   `clients_that_leave_cost_nothing`
//! * handshakes that trickle, are left, or come in the smallest records:
//!   `handshakes::handshakes_that_trickle_end_at_their_deadline`,
//!   `handshakes::many_handshakes_that_are_left`,
//!   `handshakes::greetings_in_the_smallest_records_are_understood`
//! * junk, empty and oversized records, greetings of 48 KiB:
//!   `handshakes::junk_in_place_of_a_handshake`,
//!   `handshakes::junk_in_the_middle_of_a_connection`
//! * records that change nothing, and keys that change always:
//!   `handshakes::change_cipher_specs_without_end`, `handshakes::keys_that_are_changed_without_end`
//! * requests and frames with wrong bytes, to the admin listener too:
//!   `mutated::requests_with_wrong_bytes`, `mutated::frames_with_wrong_bytes`
//! * no descriptors are left for admin and uploads, and accepting does not go on when they are free
//!   again: `files.rs`: `more_connections_than_files_keep_nobody_from_admin_and_uploads`,
//!   `more_uploads_than_files_take_none_from_others`; `io/src/ring/tests/accept.rs`:
//!   `accepting_goes_on_by_itself_whatever_freed_a_descriptor`
//! * one connection too many is closed without a word: `hostile.rs`: `connections_have_a_maximum`
//! * idle connections shut the admin listener: `requests::idle_connections_do_not_shut_admin`
//! * profiles, all at once or left: `requests::profiles_that_are_asked_for_all_at_once_and_left`
//! * one step holds a shard: `hang.rs`: `a_stall_makes_the_node_unready_while_it_lasts`
//! * bytes behind a close_notify hang a shard: `answers.rs`:
//!   `bytes_behind_a_close_notify_harm_nobody`,
//!   `a_byte_behind_a_close_notify_does_not_end_a_download`
//!
//! What loses or spoils an answer:
//!
//! * much follows a refusal: `answers.rs`:
//!   `a_refusal_is_read_by_a_client_that_sends_everything_first`,
//!   `a_framing_error_is_read_by_a_client_that_sends_everything_first`,
//!   `who_goes_on_sending_is_cut_off`
//! * nginx goes on sending, or asks as proxies do: `proxies.rs`:
//!   `content_and_refusals_come_through_nginx`, `with_a_token_nginx_may_write`
//! * a deletion meets a GET, or what is being read: `answers.rs`:
//!   `a_get_that_meets_a_delete_is_answered`; `uploads::deleted_while_it_is_read`
//! * a put that meets a deletion makes the node unready: `uploads::stored_deleted_and_read_at_once`
//! * an empty line is answered as a late request: `requests::an_empty_line_is_no_request`
//! * a HELLO ends a stream: `requests::a_hello_ends_no_stream`
//! * TLS errors without an alert, and tickets that are lost with it:
//!   `handshakes::who_breaks_tls_is_told_so_behind_all_that_was_to_be_sent`,
//!   `handshakes::an_alert_answers_what_breaks_a_handshake`
//! * a get is late although its credit has come: needs a node that does not read:
//!   `shards/src/session/oap/tests/life.rs`: `credit_that_lies_unread_is_not_late`
//! * chunks longer than any object are waited for; conditions of a PUT are ignored; `OPTIONS
//!   *`: `requests::what_is_said_of_a_body_is_judged_before_it_comes`
//!
//! What is understood or let in and must not be, without a flood and so without figures:
//!
//! * heads that can be read in two ways, request lines, lengths of heads and targets, chunks,
//!   bodies that look like requests: `hostile.rs`:
//!   `heads_that_two_readers_could_understand_differently`,
//!   `heads_and_targets_have_a_length`, `bodies_that_nobody_wants_are_passed_over`,
//!   `a_body_that_ends_early_is_not_kept`
//! * edges of ranges and conditions: `ranges.rs`: `every_edge_over_http`, `every_edge_over_oap`,
//!   `if_range_decides_and_head_has_none`
//! * frames of every form: `oap.rs`: `hello_in_each_of_its_forms`,
//!   `framing_errors_are_answered_once`, `puts_of_another_length_are_refused`,
//!   `streams_have_a_maximum_and_an_order`, `keys_may_change_in_the_midst_of_a_stream`
//! * what is not built is refused plainly: `oap.rs`:
//!   `what_is_unknown_is_refused_and_the_connection_goes_on`
//! * slow heads, bodies and frames: `hostile.rs`, `oap.rs`: `slow_clients_meet_deadlines`
//! * versions and protocols of TLS: `tls.rs`: `the_name_of_the_protocol`,
//!   `bytes_that_are_no_tls_are_cut_off`
//! * who may write: `doors.rs`: `a_page_with_a_rebound_name_changes_and_learns_nothing`,
//!   `a_proxy_on_this_machine_lends_nobody_its_address`,
//!   `with_a_token_the_proxy_and_its_neighbours_need_it`; `oap.rs`:
//!   `others_need_a_capability_to_write`
//! * failures are in no log: `doors.rs`: `a_refusal_is_found_in_the_log_by_its_id`
//! * SIGHUP ends the process: `reload.rs`: `no_signal_but_those_that_ask_for_it_ends_a_node`
//! * transfers that never end hold up the end of the node: `restart.rs`:
//!   `a_transfer_that_never_ends_does_not_hold_the_node`
//! * `ronctl` writes through links, stores files of the system as empty, leaves parts behind:
//!   `cli.rs`: `files_of_the_system_are_stored_as_they_read`,
//!   `a_download_that_is_interrupted_leaves_nothing`; `engine/src/client/download.rs`:
//!   `files_and_links_of_others_are_left_alone`

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod frames;
mod handshakes;
mod mutated;
mod requests;
mod uploads;

#[test]
fn the_tests_that_are_named_here_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = String::new();
    let beside = ["tests", "src", "../shards/src", "../io/src"];
    let mut folders = Vec::from(beside.map(|folder| root.join(folder)));
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
    assert!(tests.len() > 70, "{}", tests.len());
    for name in tests {
        assert!(texts.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}
