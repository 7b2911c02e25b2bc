FROM scratch AS tools
COPY a /
FROM busybox AS base
ONBUILD COPY --from=tools /a /
ONBUILD RUN make
FROM base
RUN own
