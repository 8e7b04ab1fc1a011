module auditspan/benchmarks/sink

go 1.25
