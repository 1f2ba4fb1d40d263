"""The security checklist, S01 to S68: what holds each requirement.

A value is a test (`file::function`, below `tests/`), or says in words why it does not apply.
"""

from typing import Final

CHECKLIST: Final[dict[str, tuple[str, ...]]] = {
    "S01": (
        "edge/test_admin_door.py::test_every_endpoint_asks_for_the_key_and_calls_nothing_without",
        "edge/test_route_walk.py::test_s01_s14_every_method_of_a_path_for_every_caller",
    ),
    "S02": (
        "edge/test_admin_door.py::test_the_table_is_the_one_that_was_agreed_on",
        "edge/test_route_walk.py::test_s02_who_may_what_is_as_it_was_agreed_on",
    ),
    "S03": (
        "security/test_wire.py::test_s03_what_is_refused_is_refused_before_its_body_is_asked_for",
        "edge/test_admin_door.py::test_a_stranger_is_told_so_before_ten_gigabytes",
        "edge/test_access.py::test_s03_without_a_key_nothing_is_read_and_nothing_sent",
    ),
    "S04": (
        "edge/test_admin_door.py::test_the_same_key_twice_is_one_and_two_keys_are_refused_alike",
        "phases/test_door.py::test_s04_every_carrier_is_alike",
        "phases/test_door.py::test_s04_two_keys_are_none_and_one_twice_is_one",
    ),
    "S05": (
        "conformance/test_keys.py::test_s05_a_dump_holds_no_key_and_no_secret",
        "phases/test_key_ring.py::test_s05_without_the_pepper_nothing_verifies",
        "core/test_virtual_key.py::test_s05_a_hash_needs_its_pepper_and_its_id",
    ),
    "S06": (
        "phases/test_key_timing.py::test_s06_an_unknown_id_takes_as_long_as_a_wrong_secret",
        "phases/test_key_ring.py::test_s06_an_unknown_id_and_a_wrong_secret_are_told_alike",
    ),
    "S07": (
        "core/test_virtual_key.py::test_s07_a_secret_has_256_bits_of_entropy",
        "phases/test_key_ring.py::test_s07_what_is_no_key_is_told_apart_without_the_store",
    ),
    "S08": ("edge/test_admin_keys.py::test_s08_a_key_is_shown_once",),
    "S09": (
        "edge/test_admin_keys.py::test_s09_a_revocation_reaches_another_instance_within_a_second",
        "phases/test_key_ring.py::test_s09_a_revocation_reaches_another_process_within_a_second",
        "phases/test_key_ring.py::test_s09_without_redis_the_others_still_look",
        "stores/test_one_file.py::test_s09_what_is_written_after_another_process_has_closed_the_file_is_seen",
    ),
    "S10": ("phases/test_key_ring.py::test_s10_the_last_copy_is_good_for_an_hour_and_no_longer",),
    "S11": (
        "core/test_key_rights.py::test_s11_nobody_gets_hold_of_more_than_they_have",
        "edge/test_admin_keys.py::test_s11_no_role_makes_a_stronger_key",
    ),
    "S12": (
        "edge/test_admin_door.py::test_no_body_takes_a_member_that_the_endpoint_does_not_name",
        "edge/test_admin_keys.py::test_s12_what_is_not_to_be_set_is_refused_by_name",
    ),
    "S13": (
        "edge/test_accounts_apart.py::*",
        "edge/test_admin_keys.py::test_s13_a_key_of_one_account_sees_nothing_of_another",
        "conformance/test_keys.py::test_s13_a_key_is_nowhere_for_another_account",
        "conformance/test_ledger.py::test_s13_a_row_of_another_account_is_not_found",
        "edge/test_accounts_own.py::test_an_accounts_empty_balance_is_not_the_others",
    ),
    "S14": (
        "edge/test_admin_standing.py::test_everything_below_admin_is_behind_the_door",
        "edge/test_route_walk.py::test_s14_a_port_of_its_own_has_the_admin_api_and_the_other_has_not",
    ),
    "S15": (
        "server/test_admin_process.py::test_a_weak_key_does_not_start",
        "server/test_trust.py::test_s15_the_process_does_not_start",
        "server/test_sealed.py::test_s15_a_weak_key_is_refused",
    ),
    "S16": (
        "edge/test_admin_door.py::test_a_thousand_wrong_keys_are_told_to_stop_and_stop_nobody_else",
        "phases/test_door.py::test_s16_wrong_keys_are_limited_by_address_and_right_ones_never",
    ),
    "S17": (
        "security/test_lints.py::test_s17_no_statement_is_put_together_from_values",
        "security/test_lints.py::test_s17_sql_is_in_the_stores_alone",
    ),
    "S18": ("security/test_lints.py::test_s18_nothing_is_evaluated_unpickled_or_started",),
    "S19": (
        "config/test_read.py::test_a_few_lines_of_aliases_do_not_fill_the_memory",
        "config/test_read.py::test_refused",
        "security/test_lints.py::test_s18_nothing_is_evaluated_unpickled_or_started",
    ),
    "S20": (
        "security/test_smuggling.py::test_s20_s21_s27_s49_nothing_is_smuggled",
        "security/test_smuggling.py::test_s20_a_trailer_is_no_field_of_the_next_request",
    ),
    "S21": (
        "core/test_request_head.py::test_s21_s27_refused",
        "security/test_smuggling.py::test_s20_s21_s27_s49_nothing_is_smuggled",
    ),
    "S22": (
        "security/test_wire.py::test_s22_s23_s24_odd_headers_stay_here",
        "security/test_wire.py::test_s22_what_connection_names_stays_here",
        "core/test_headers.py::test_what_an_upstreams_connection_names_is_dropped",
    ),
    "S23": ("security/test_wire.py::test_s22_s23_s24_odd_headers_stay_here",),
    "S24": (
        "security/test_wire.py::test_s22_s23_s24_odd_headers_stay_here",
        "security/test_wire.py::test_s24_s25_s26_a_hostile_head_harms_nobody",
    ),
    "S25": ("security/test_wire.py::test_s24_s25_s26_a_hostile_head_harms_nobody",),
    "S26": (
        "core/test_request_head.py::test_s26_a_value_that_is_no_text_is_told_by_its_name",
        "core/test_headers.py::test_unsafe_values_pass_neither_way",
        "edge/test_bad_input.py::test_a_request_id_is_echoed_if_it_is_clean",
    ),
    "S27": (
        "core/test_request_head.py::test_s21_s27_refused",
        "edge/test_passthrough.py::test_what_could_be_read_differently_stays_here",
        "edge/test_admin_standing.py::test_what_only_looks_like_it_is_not_there",
    ),
    "S28": ("edge/test_admin_door.py::test_another_host_name_is_refused",),
    "S29": (
        "edge/test_connections.py::test_s29_fields_that_are_too_long_together",
        "core/test_request_head.py::test_s29_the_bound_of_a_head",
        "security/test_smuggling.py::test_s20_s21_s27_s49_nothing_is_smuggled",
        "edge/test_bad_input.py::test_too_large_by_its_length_is_refused_before_it_is_read",
    ),
    "S30": (
        "edge/test_bad_input.py::test_a_compressed_bomb_is_refused",
        "edge/test_bad_input.py::test_a_body_that_is_no_request",
    ),
    "S31": ("security/test_wire.py::test_s31_no_request_chooses_the_host",),
    "S32": ("config/test_address.py::test_refused",),
    "S33": (
        "upstream/test_resolver.py::test_s33_a_name_that_is_rebound_reaches_no_private_address",
        "upstream/test_resolver.py::test_s33_a_canary_on_this_machine_sees_no_connect",
    ),
    "S34": ("upstream/test_resolver.py::test_s34_no_name_leads_to_the_metadata_service",),
    "S35": ("config/test_address.py::test_refused",),
    "S36": (
        "upstream/test_resolver.py::test_s36_nothing_of_the_environment_and_no_cookies",
        "faults/test_before_content.py::test_f016_a_redirect_is_not_followed",
    ),
    "S37": ("config/test_address.py::test_refused",),
    "S38": ("faults/test_before_content.py::test_f005_a_certificate_that_nobody_vouches_for",),
    "S39": ("cache/test_tenants.py::*",),
    "S40": ("core/test_cache_key.py::*",),
    "S41": ("cache/test_tenants.py::*",),
    "S42": ("core/test_cached_answer.py::*",),
    "S43": ("edge/test_bad_input.py::test_a_body_that_is_no_request",),
    "S44": ("security/test_policy.py::test_s44_no_path_and_no_name_leads_around_the_routes_of_a_key",),
    "S45": (
        "money/test_reservations.py::test_a_cap_beyond_all_reason_is_refused_not_a_bug",
        "money/test_reservations.py::test_f071_a_cap_is_inserted_under_the_targets_own_name",
        "edge/test_bad_input.py::test_a_body_that_is_no_request",
        "A key names routes, limits and budgets, and no fields of a body: what those may cost is clamped by the cost tier.",
    ),
    "S46": ("core/test_budget.py::*",),
    "S47": (
        "edge/test_connections.py::test_s47_one_address_leaves_room_for_others",
        "limits/test_crowds.py::test_slots_are_never_more_than_there_are",
    ),
    "S48": (
        "edge/test_connections.py::test_f060_s48_a_head_that_does_not_come_is_given_up",
        "edge/test_connections.py::test_f060_s48_a_dribbled_head_is_given_up",
        "edge/test_connections.py::test_f061_a_body_of_a_byte_a_second_makes_no_progress",
        "edge/test_connections.py::test_s48_an_answer_that_nobody_reads_holds_no_connection",
        "security/test_crowds.py::test_s48_slow_clients_slow_nobody_else",
    ),
    "S49": (
        "edge/test_bad_input.py::test_pipelined_requests_are_answered_in_order",
        "security/test_smuggling.py::test_s20_s21_s27_s49_nothing_is_smuggled",
    ),
    "S50": (
        "core/test_envelope.py::test_s50_the_ciphertexts_of_two_rows_cannot_be_swapped",
        "core/test_envelope.py::test_s50_one_flipped_bit_anywhere_is_noticed",
    ),
    "S51": (
        "cli/test_secrets_command.py::test_s51_a_rotation_that_is_killed_is_gone_on_with",
        "server/test_sealed.py::test_s51_what_others_change_meanwhile_is_neither_lost_nor_undone",
        "server/test_sealed.py::test_s51_what_no_key_opens_is_left_and_told",
    ),
    "S52": (
        "server/test_sealed_process.py::test_s52_the_master_key_is_in_no_store_log_argument_or_child",
        "server/test_sealed_process.py::test_s52_what_a_hardened_process_starts_has_no_key_in_its_environment",
        "cli/test_secrets_command.py::test_s52_a_value_is_no_argument",
    ),
    "S53": (
        "core/test_redact.py::*",
        "canaries/test_canaries.py::*",
        "telemetry/test_logs.py::test_s53_what_is_hidden_stands_in_no_line_of_any_kind",
        "edge/test_accounts_own.py::test_s53_an_accounts_credential_is_hidden_from_the_log",
    ),
    "S54": ("canaries/test_canaries.py::test_s53_s54_what_clients_send_is_in_no_sink",),
    "S55": (
        "security/test_wire.py::test_s55_nobody_writes_lines_of_their_own",
        "telemetry/test_logs.py::test_on_a_terminal_a_line_is_readable_and_cannot_be_forged",
    ),
    "S56": (
        "security/test_lints.py::test_s56_expressions_take_linear_time",
        "core/test_redact.py::test_hostile_texts_take_linear_time",
    ),
    "S57": ("security/test_wire.py::test_s57_errors_tell_nothing_of_the_inside",),
    "S58": ("There is no endpoint for metrics yet; whoever adds it names its test here.",),
    "S59": ("There is no dashboard yet.",),
    "S60": ("There is no dashboard yet.",),
    "S61": ("There is no dashboard yet, no session and no cookie.",),
    "S62": (
        "edge/test_browsers.py::test_any_other_options_is_405",
        "edge/test_browsers.py::test_by_default_no_page_may_ask",
    ),
    "S63": (
        "edge/test_admin_door.py::test_every_endpoint_asks_for_the_key_and_calls_nothing_without",
        "security/test_policy.py::test_s63_what_a_key_is_told_by_get_is_kept_by_no_cache",
    ),
    "S64": (
        "deploy/test_image.py::test_s64_everything_is_locked_and_no_secret_is_baked_in",
        "clients/tools/test_tools.py::test_the_locks_pin_every_package_by_hash",
    ),
    "S65": ("A bill of materials and an audit of dependencies belong to a release, and there was none yet.",),
    "S66": ("Publishing belongs to a release, and there was none yet.",),
    "S67": (
        "deploy/test_image.py::test_s67_nobodys_user_no_shell_and_nothing_run_in_the_end",
        "deploy/test_image.py::test_s67_the_root_may_be_read_only",
        "deploy/test_compose.py::test_s67_services_are_hardened",
        "deploy/test_chart.py::test_s67_the_pod_is_hardened",
        "deploy/test_systemd.py::test_s67_it_is_hardened",
    ),
    "S68": (
        "conformance/test_audit.py::*",
        "core/test_audit.py::*",
        "edge/test_admin_audit.py::*",
        "cli/test_audit_command.py::test_s68_verify_tells_what_was_tampered_with",
        "cli/test_secrets_command.py::test_s68_what_a_command_does_to_the_secrets_is_in_the_audit_log",
        "cli/test_secrets_command.py::test_s68_what_cannot_be_written_down_is_not_done",
    ),
}
