FROM scratch AS tools
COPY a /bin/
FROM busybox
WORKDIR /work
ARG ID=seven
RUN --mount=target=. --mount=from=tools,source=/bin,target=/tools,rw make
RUN --mount=type=cache,target=/root/.cache --mount=type=cache,id=$ID,target=c,sharing=locked,uid=1,mode=0700,ro make
RUN --mount=type=tmpfs,target=/tmp,size=16m make
RUN --mount=type=secret,id=token --mount=type=secret,id=key,env=KEY,required \
    --mount=type=secret,id=both,target=/both,env=BOTH,uid=1,gid=2,mode=0444 make $KEY
RUN --mount=type=ssh --mount=type=ssh,id=other,target=/agent,required make
