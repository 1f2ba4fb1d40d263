"""The security checklist, S01 to S68: what holds each requirement.

A value is a test (`file::function`, below `tests/`), or says in words why it does not apply, or `elsewhere` where the part
that it belongs to names its own test.
"""

from typing import Final

ELSEWHERE: Final = "elsewhere"

CHECKLIST: Final[dict[str, tuple[str, ...]]] = {
    "S01": ("edge/test_admin_door.py::test_every_endpoint_asks_for_the_key_and_calls_nothing_without", ELSEWHERE),
    "S02": ("edge/test_admin_door.py::test_the_table_is_the_one_that_was_agreed_on",),
    "S03": (
        "security/test_wire.py::test_s03_what_is_refused_is_refused_before_its_body_is_asked_for",
        "edge/test_admin_door.py::test_a_stranger_is_told_so_before_ten_gigabytes",
    ),
    "S04": ("edge/test_admin_door.py::test_the_same_key_twice_is_one_and_two_keys_are_refused_alike", ELSEWHERE),
    "S05": (ELSEWHERE,),
    "S06": (ELSEWHERE,),
    "S07": (ELSEWHERE,),
    "S08": (ELSEWHERE,),
    "S09": (ELSEWHERE,),
    "S10": (ELSEWHERE,),
    "S11": (ELSEWHERE,),
    "S12": ("edge/test_admin_door.py::test_no_body_takes_a_member_that_the_endpoint_does_not_name",),
    "S13": (ELSEWHERE,),
    "S14": ("edge/test_admin_standing.py::test_everything_below_admin_is_behind_the_door",),
    "S15": (ELSEWHERE,),
    "S16": ("edge/test_admin_door.py::test_a_thousand_wrong_keys_are_told_to_stop_and_stop_nobody_else", ELSEWHERE),
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
    "S44": (ELSEWHERE,),
    "S45": (ELSEWHERE,),
    "S46": ("core/test_budget.py::*",),
    "S47": ("edge/test_connections.py::test_s47_one_address_leaves_room_for_others", ELSEWHERE),
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
    "S50": (ELSEWHERE,),
    "S51": (ELSEWHERE,),
    "S52": (ELSEWHERE,),
    "S53": ("core/test_redact.py::*", ELSEWHERE),
    "S54": (ELSEWHERE,),
    "S55": (
        "security/test_wire.py::test_s55_nobody_writes_lines_of_their_own",
        "telemetry/test_logs.py::test_on_a_terminal_a_line_is_readable_and_cannot_be_forged",
    ),
    "S56": (
        "security/test_lints.py::test_s56_expressions_take_linear_time",
        "core/test_redact.py::test_hostile_texts_take_linear_time",
    ),
    "S57": ("security/test_wire.py::test_s57_errors_tell_nothing_of_the_inside",),
    "S58": (ELSEWHERE,),
    "S59": (ELSEWHERE,),
    "S60": (ELSEWHERE,),
    "S61": ("There is no session and no cookie.",),
    "S62": (
        "edge/test_browsers.py::test_any_other_options_is_405",
        "edge/test_browsers.py::test_by_default_no_page_may_ask",
    ),
    "S63": ("edge/test_admin_door.py::test_every_endpoint_asks_for_the_key_and_calls_nothing_without", ELSEWHERE),
    "S64": (ELSEWHERE,),
    "S65": (ELSEWHERE,),
    "S66": (ELSEWHERE,),
    "S67": (ELSEWHERE,),
    "S68": (ELSEWHERE,),
}
