"""Where each curve stops to be a straight line, and why: read from the figures of the day named, not computed.

Each figure is of a table that this benchmark wrote on that day, or of the tool that is named beside it.
"""

NOTES = {
    "input size": (
        "Seen on 2026-11-23: a request of 28 x 28 cost clients and Triton 0.51 ms of CPU and the stubs 0.27 ms; of"
        " 512 x 512, 334 times the bytes, 1.7 ms and 57 ms. The served rate bends where the network costs no more"
        " than the request, near 50 x 50 pixels. From 224 x 224 on it falls with the pixels, as bare ONNX Runtime"
        " does (0.22 µs a pixel in the stubs at both sizes), at 0.7 to 0.9 of its rate; of a median of 257 ms at"
        " 512 x 512 Triton counted 31 ms in the queue and 223 ms in the network."
    ),
    "request batch": (
        "Seen on 2026-11-23: twice the batch gave 1.8 times the rate from 1 to 2 inputs and 1.1 times from 32 to 64."
        " A request cost clients and Triton 0.6 ms of CPU with 1 input and 1.7 ms with 64, so an input's share fell"
        " from 605 to 26 µs; the stubs' 150 µs, which bare ONNX Runtime needs, too, no batch makes less. From 4"
        " inputs a request on these are more than half of the CPU: there the straight line ends."
    ),
    "model size": (
        "Seen on 2026-11-23: the rate falls with the parameters from 5 million on, where the stubs spend 1.9 to"
        " 2.2 ms of CPU for a million of them and all else, 1.2 to 1.8 ms a request, hardly counts (0.8 to 0.96 of"
        " bare ONNX Runtime). At 0.05 million clients and Triton spend 0.58 ms beside the stubs' 0.33 ms. Memory"
        " grows by a little more than twice the weights: each of the two instances holds its own."
    ),
    "number of models": (
        "Seen on 2026-11-23: start and memory are straight lines of 0.25 s and 60 MB a model, that is two stubs of"
        " 30 MB, each with its own Python, NumPy and ONNX Runtime. The model that is asked pays nothing for its"
        " neighbours: Triton spent 196 µs of CPU an input beside none and 202 µs beside 63. With the python backend's"
        " default of 32 threads an instance it was 428 µs: perf found 30 % of Triton's time in the kernel's"
        " futex_wake, among 4,572 threads. Canaries to 64 models keep 0.1 cores at work."
    ),
    "connected clients": (
        "Seen on 2026-11-23: with 32 requests in flight 1,000 connections had 0.63 of the rate of one. An input's CPU"
        " grew from 154 to 409 µs in the clients and from 179 to 360 µs in Triton, hardly in the stubs: strace"
        " counted 0.5 of Triton's sendmsg and recvmsg an answer over one connection, and 2.9 over 100, because"
        " messages of one connection share a call. When all ask at once the two cores are full from 100 clients"
        " on, and latency is the queue: 310 of 439 ms at 1,000."
    ),
    "replicas": (
        "Seen on 2026-11-23: one replica and its clients kept 1.7 of the two cores at work, so that further ones add"
        " none: the curve is flat (224 x 224) or falls (28 x 28). Envoy itself took 121 µs of CPU a small request,"
        " 12 % of the rate. More replicas split the same requests into smaller batches, 9.2, 4.2 and 2.8 inputs,"
        " which cost Triton and stubs 381, 491 and 519 µs an input, and p99 grew from 27 to 75 ms. At 2,641/s a"
        " replica took 1.0 cores, Envoy 0.3, the clients 0.45: three at that rate would need 5.3 cores."
    ),
}
