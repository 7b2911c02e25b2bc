FROM busybox AS base
RUN never
FROM base
COPY --from=tools /a /a
