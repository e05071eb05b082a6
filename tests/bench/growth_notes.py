"""Where each curve stops to be a straight line, and why: what to look for in a table, whose columns show it.

What another tool than this benchmark showed names the tool.
"""

NOTES = {
    "input size": (
        "A small image costs clients and Triton more CPU than it costs the stubs: the rate bends where the network"
        " costs no more than the request. Beyond, it falls with the pixels, as bare ONNX Runtime's does."
    ),
    "request batch": (
        "Clients' and Triton's share of an input's CPU falls with the batch, the stubs' does not, which bare ONNX"
        " Runtime needs, too: the straight line ends where the stubs' is more than half."
    ),
    "model size": (
        "A small network costs less CPU than its request; of a large one the stubs' CPU grows with the parameters, and"
        " the rate falls as bare ONNX Runtime's does. Memory grows by twice the weights: each of two instances holds"
        " its own."
    ),
    "number of models": (
        "Start and memory are straight lines: each model brings two stubs, each with its own Python, NumPy and ONNX"
        " Runtime. The model that is asked pays nothing for its neighbours. With the python backend's default of 32"
        " threads an instance it did: perf found 30 % of Triton's time in the kernel's futex_wake."
    ),
    "connected clients": (
        "More connections cost clients and Triton CPU, hardly the stubs: messages of one connection share a system"
        " call (strace counted 0.5 of sendmsg and recvmsg an answer over one connection, 2.9 over 100). When all ask"
        " at once the cores are full from 100 clients on, and latency is the queue."
    ),
    "replicas": (
        "Where one replica and its clients keep the machine's cores at work, further ones add none. More replicas"
        " split the same requests into smaller batches, which cost Triton and stubs more CPU an input, and p99 grows."
        " What the cores busy and the CPU an input say of one replica is what each further one would need."
    ),
}
