"""From a source to a request and from a response to a result, with no I/O to a server.

Synchronous and asynchronous clients drive the same functions.
"""

from radserve._codec._call import CallOptions, Calls, ContractCell, client_options
from radserve._codec._coalesce import Coalescer, Group, coalescer_of
from radserve._codec._deadline import Deadline
from radserve._codec._decode import Answer, read_contract, to_answer
from radserve._codec._flow import Ask, Flow, Join, Prepare, Record, Reply, Sleep, told, work_of
from radserve._codec._flows import (
    contract_flow,
    health_flow,
    infer_flow,
    is_prepared_at_once,
    models_flow,
    predict_flow,
    prepare_step,
    wait_flow,
)
from radserve._codec._item import Item
from radserve._codec._observed import preparing
from radserve._codec._prepare import Prepared, Source, batches, canary, check_arrays, prepare
from radserve._codec._results import Prediction, combine, result_type, sdk_version, to_result
from radserve._codec._statistics import Statistics, statistics_flow
from radserve._codec._window import Counter, Window, check_many, kept, numbered, size_of
from radserve._codec._wire import to_request

__all__ = [
    "Answer",
    "Ask",
    "CallOptions",
    "Calls",
    "Coalescer",
    "ContractCell",
    "Counter",
    "Deadline",
    "Flow",
    "Group",
    "Item",
    "Join",
    "Prediction",
    "Prepare",
    "Prepared",
    "Record",
    "Reply",
    "Sleep",
    "Source",
    "Statistics",
    "Window",
    "batches",
    "canary",
    "check_arrays",
    "check_many",
    "client_options",
    "coalescer_of",
    "combine",
    "contract_flow",
    "health_flow",
    "infer_flow",
    "is_prepared_at_once",
    "kept",
    "models_flow",
    "numbered",
    "predict_flow",
    "prepare",
    "prepare_step",
    "preparing",
    "read_contract",
    "result_type",
    "sdk_version",
    "size_of",
    "statistics_flow",
    "to_answer",
    "to_request",
    "to_result",
    "told",
    "wait_flow",
    "work_of",
]
