-- wrk -s wrk.lua URL -- METHOD TARGETS [BODY [once]]
-- Asks for the targets (one a line) in turn and prints what came of it as one line of JSON.
-- With `once` each line of BODY is a body that is sent once, to the first target; whatever is
-- asked after the last of them is nothing that succeeds, and `used_up` tells of it.

local requests = {}
local turn = 0
local threads = {}
local once = false

local function content(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function setup(thread)
  thread:set("number", #threads)
  threads[#threads + 1] = thread
end

function init(args)
  once = args[4] == "once"
  if once then
    local target, line = content(args[2]):match("[^\n]+"), 0
    for body in content(args[3]):gmatch("[^\n]+") do
      if line % 2 == number then  -- there are two threads
        requests[#requests + 1] = wrk.format(args[1], target, nil, body)
      end
      line = line + 1
    end
    requests[#requests + 1] = wrk.format("GET", "/there-are-no-bodies-left")
    return
  end
  local body = args[3] and content(args[3]) or nil
  for target in content(args[2]):gmatch("[^\n]+") do
    requests[#requests + 1] = wrk.format(args[1], target, nil, body)
  end
end

function request()
  if once then
    turn = math.min(turn + 1, #requests)
    used_up = turn == #requests  -- a global: `done` reads it of each thread
  else
    turn = turn % #requests + 1
  end
  return requests[turn]
end

function done(summary, latency)
  local errors, out = summary.errors, false
  for _, thread in ipairs(threads) do
    out = out or thread:get("used_up") == true
  end
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "refused": %d, "broken": %d, ' ..
    '"used_up": %s}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, tostring(out)))
end
