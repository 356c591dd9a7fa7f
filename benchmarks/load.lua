-- For wrk: posts the lines of the file LOAD_BODIES in turn to one path, then prints figures as JSON.
-- Every thread starts at another line, so that no two send the same text at the same time.
-- LOAD_PAUSE are milliseconds between an answer and a connection's next request.
local bodies = {}
for line in io.lines(os.getenv("LOAD_BODIES")) do bodies[#bodies + 1] = line end

local threads = 0
function setup(thread)
  thread:set("first", threads)
  threads = threads + 1
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local turn

function request()
  turn = (turn or first * 1009) + 1
  return wrk.format(nil, nil, nil, bodies[turn % #bodies + 1])
end

local pause = tonumber(os.getenv("LOAD_PAUSE") or "0")
if pause > 0 then
  function delay()
    return pause
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "num_bytes": %d, "errors": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
