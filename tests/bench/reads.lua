-- One GET after another from a file of paths, for wrk. Arguments: the file; then name and value of each header.
-- Every thread starts at another place of the list. Prints one line for the harness: RESULT count µs p50 p99 errors.

local requests = {}
local position = 0
local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(arguments)
   local headers = {}
   for at = 2, #arguments - 1, 2 do
      headers[arguments[at]] = arguments[at + 1]
   end
   for path in io.lines(arguments[1]) do
      requests[#requests + 1] = wrk.format("GET", path, headers)
   end
   position = math.floor(number * #requests / 4)
end

function request()
   position = position % #requests + 1
   return requests[position]
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format("RESULT %d %d %.1f %.1f %d\n", summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(99),
      errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
