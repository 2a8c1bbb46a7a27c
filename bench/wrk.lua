-- wrk -s wrk.lua URL -- METHOD TARGETS [BODY]
-- Asks for the targets (one a line) in turn and prints what came of it as one line of JSON.

local requests = {}
local turn = 0

local function content(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  local body = args[3] and content(args[3]) or nil
  for target in content(args[2]):gmatch("[^\n]+") do
    requests[#requests + 1] = wrk.format(args[1], target, nil, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
