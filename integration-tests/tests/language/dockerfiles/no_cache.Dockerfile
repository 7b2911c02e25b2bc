FROM busybox AS build
RUN make
FROM busybox
COPY --from=build /made /
