-- A load for wrk on the service of the quickstart (MovieLens-100K): every second request asks for a user's
-- recommendations, the others post a history of 50 films.
local histories, random = {}, math.random
math.randomseed(7)
for _ = 1, 500 do
  local films = {}
  for place = 1, 50 do films[place] = '"' .. random(1682) .. '"' end
  histories[#histories + 1] = '{"items": [' .. table.concat(films, ",") .. "]}"
end
local number, headers = 0, { ["Content-Type"] = "application/json" }

function request()
  number = number + 1
  if number % 2 == 0 then return wrk.format("GET", "/recommendations/" .. random(943)) end
  return wrk.format("POST", "/recommendations", headers, histories[random(#histories)])
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format("p50 %.1f ms, p99 %.1f ms, %d requests, errors %d", latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, summary.requests, errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
