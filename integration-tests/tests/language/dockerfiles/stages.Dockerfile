ARG BASE=busybox
FROM ${BASE} AS Base
ENV FROM_BASE=1
FROM base AS build
RUN make
FROM scratch AS unused
COPY --from=not/there /x /
FROM base AS run
COPY --from=BUILD /made /
FROM run
RUN never
